"""The Follow-Me-Cloud controller: follows users, decides, has services migrated, and tells the xTRs."""
