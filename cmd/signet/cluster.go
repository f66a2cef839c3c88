package main

import "github.com/spf13/cobra"

func clusterCommand(a *app) *cobra.Command {
	return parent("cluster", "save, restore and look after the store", "  signet cluster backup --out /backups\n  signet cluster restore --in shop.signetbackup --dry-run",
		clusterBackupCommands(a)...)
}
