"""Pictures and pages: curves of a run, sheets of images, and the HTML report."""
