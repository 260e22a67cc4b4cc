"""Our time beside a reference's, in one run. `make bench` runs all of them."""
