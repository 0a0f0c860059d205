"""EleutherAI's lm-evaluation-harness (the extra `lm-eval`), both ways: its tasks for our models, and our tasks for its models."""
