"""``python -m search.cli`` is ``clinie``, for places that know an interpreter and no scripts folder."""

from search.cli.main import main

if __name__ == "__main__":
    main()
