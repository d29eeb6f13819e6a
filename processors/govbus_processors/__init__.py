"""Exchange: decides, projects and routes each change, in one transaction per batch."""
