"""What a machine and a deployment achieve: `onebar bench`."""
