"""From an archive of events to training triggers: `onebar dataset`."""
