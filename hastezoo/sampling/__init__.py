"""Pure mathematics of generation: paths, guidance, solvers, noise. Knows nothing of models, files or users.

v = guidance.guided(model, condition, null, scale=1.65, interval=(0.0, 0.72))
source = noise.NoiseSource(seeds)
x0 = solvers.integrate("euler-maruyama", v, source.initial(shape), steps=250,
                       interpolant=interpolants.Linear(), noise=source)
"""
