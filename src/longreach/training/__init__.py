"""Training: pretraining of small models with checkpoints that survive a kill at any moment."""
