"""Networks that end in a linear layer; they know nothing of Lightning."""
