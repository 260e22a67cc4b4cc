"""Choose settings by what they cost on this machine: which runs fit into a time, and which of them to recommend."""
