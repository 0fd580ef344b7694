"""The search itself: loops, replay, budget, confirmation of the front, retraining."""
