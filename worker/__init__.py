"""Message in, result out: a parent that never decodes a pixel, and a killable engine process."""
