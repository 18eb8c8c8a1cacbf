"""A model before and after training: its layers, its tokenizer, its files."""
