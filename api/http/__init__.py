"""HTTP as such: who may pass, how fast, what a body and an error look like, what is counted."""
