"""What stands inside a model before and behind a net, so that the exported file takes what people
have: features of sounds, columns of tables, numbers in their own units."""
