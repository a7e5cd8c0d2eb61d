"""Values with intervals that cover: shares, AUROC, the true-positive rate at a false-positive rate, means."""
