"""The pretrained families behind the full-size policies, each as a tower: words in, frames in, features out."""
