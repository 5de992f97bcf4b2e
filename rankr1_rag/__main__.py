"""`python -m rankr1_rag` is `rankr1`."""

from rankr1_rag.cli import main

if __name__ == "__main__":
    main()
