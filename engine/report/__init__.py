"""What people look at: console tables, progress, figures and sheets of pictures."""
