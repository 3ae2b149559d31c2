"""What is recorded on the spot, class by class: ``python -m tools.coverage`` (`__main__`)."""
