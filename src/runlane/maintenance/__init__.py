"""Whatever happens periodically: rescue, retention, crons."""
