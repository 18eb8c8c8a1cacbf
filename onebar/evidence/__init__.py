"""What a generation stands on: text made fit to read, the four fields, the prompt, its tokens."""
