"""What one can learn of a loss: compare, diagnose, check its gradient, find where it breaks."""
