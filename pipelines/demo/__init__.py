"""The whole way once, from photographs to a trained matcher and a report page."""
