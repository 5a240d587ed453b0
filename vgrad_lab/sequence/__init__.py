"""The sequence floor (torch): small models that show every state, credit flow, enumeration."""
