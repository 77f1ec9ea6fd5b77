"""Training: rows become a LoRA adapter. `thresher.trainer.train.train` is the arrow; these are its parts."""
