"""The one way in which networks are trained: candidates, teachers, encoders and retrained winners alike."""
