"""Training: rows become a LoRA adapter. `thresher.training.train` is the arrow; these are its parts."""
