"""What a user says -> what a model is conditioned on."""
