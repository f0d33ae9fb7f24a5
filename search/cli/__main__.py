"""Run ``clinie`` as ``python -m search.cli``, where the scripts folder is not on the path."""

from search.cli.main import main

if __name__ == "__main__":
    main()
