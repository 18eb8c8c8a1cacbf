"""`python -P -m onebar`: how our own processes start one another. With `-P` the working directory
is not on the path, so nothing in it can stand in for a package of ours."""

from onebar.cli.main import main

main()
