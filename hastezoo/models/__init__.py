"""Networks: tensors in, tensors out. `registry` lists them without importing torch."""
