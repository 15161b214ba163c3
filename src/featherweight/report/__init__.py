"""What a study found, for people: words, terminal tables, the HTML report and the model card."""
