"""The page that steps through the chain rule: its graphs, their layout, and the file itself."""
