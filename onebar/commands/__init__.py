"""The commands of `onebar`, a file for each family. Imported by `onebar.cli` alone."""
