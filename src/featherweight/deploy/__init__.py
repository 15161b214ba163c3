"""What stands beside a model where it is deployed: how inputs are made, and what outputs mean."""
