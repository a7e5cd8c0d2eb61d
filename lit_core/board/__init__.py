"""Pages to be sent to somebody without TensorBoard: one file per run, several runs, or a study."""
