"""What people read for what was measured, the same on every page and in every table."""

RISE = "Loss increase past the window"  # nats a token, above the stock model's loss on the same tokens read inside its window
