"""What the dispatcher keeps in mind: tasks that wait, what workers hold, and who died of what."""
