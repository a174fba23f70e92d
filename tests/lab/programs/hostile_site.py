"""On a lab host: the hostile corpus, as tests/hostile serves it on loopback."""

from tests.hostile.server import main

if __name__ == "__main__":
    main()
