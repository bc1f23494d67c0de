"""What is measured, a module each; `bench.catalogue` lists them."""
