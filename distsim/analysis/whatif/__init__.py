"""What a change of a finished run would be worth: a first-order estimate from what was recorded, and the sensitivities."""
