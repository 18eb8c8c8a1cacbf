"""Summaries (M of the evidence): what is seen and heard in a video, said in a few words by models
that look at its frames and listen to its sound (paper, section on evidence)."""
