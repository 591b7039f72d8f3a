"""A stand-in for Slurm on one machine: controller.py behaves as slurmctld and slurmd do, bin/ as the commands do."""
