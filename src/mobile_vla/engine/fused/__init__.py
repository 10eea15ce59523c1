"""The full-size policies made for inference alone: fewer operations, and, where wanted, in few bits."""
