"""`python -m rankr1_eval`."""

from rankr1_eval.cli import main

if __name__ == "__main__":
    main()
