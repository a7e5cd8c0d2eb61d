"""The parts of ``lit-detect report``: evaluation by condition, the page, the quality of attacked texts."""
