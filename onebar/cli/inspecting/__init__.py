"""`onebar inspect`: what is known of a video, of a user, of an answer."""
