/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <string.h>

#include "libprep/prep/rmfile.h"

static const char *const pagefile[] = {
	"/pagefile.sys",
	"/swapfile.sys",
	NULL,
};

static const char *const hiberfil[] = {
	"/hiberfil.sys",
	NULL,
};

static const char *const updates[] = {
	"/WINDOWS/$NtUninstall*",            /* hotfixes, 2000 and XP */
	"/WINDOWS/$NtServicePackUninstall$", /* service packs */
	"/WINDOWS/$hf_mig$",                 /* their branches for later updates */
	"/WINDOWS/SoftwareDistribution/Download/*",
	"/WINDOWS/SoftwareDistribution/DataStore/Logs/*",
	"/WINDOWS/ie?updates",
	"/WINDOWS/ie?",                      /* what Internet Explorer setup kept to go back */
	"/Windows/winsxs/Backup/*.old",
	NULL,
};

static const char *const temp[] = {
	"/Temp/*",
	"/WINDOWS/Temp/*",
	"/WINDOWS/Prefetch/*",
	"/WINDOWS/Minidump/*",
	"/WINDOWS/MEMORY.DMP",
	"/WINDOWS/LiveKernelReports/*",
	"/WINDOWS/System32/config/systemprofile/Local Settings/Temp/*",
	"/WINDOWS/Logs/CBS/CbsPersist_*",
	"/Documents and Settings/*/Local Settings/Temp/*",
	"/Documents and Settings/*/Local Settings/Temporary Internet Files/*",
	"/Users/*/AppData/Local/Temp/*",
	"/Users/*/AppData/Local/CrashDumps/*",
	"/Users/*/AppData/Local/Microsoft/Windows/INetCache/*",
	"/Users/*/AppData/Local/Microsoft/Windows/Temporary Internet Files/*",
	"/ProgramData/Microsoft/Windows/WER/ReportQueue/*",
	"/ProgramData/Microsoft/Windows/WER/ReportArchive/*",
	"/RECYCLER/*",
	"/RECYCLED/*",
	"/$Recycle.Bin/*",
	NULL,
};

static const char *const restore[] = {
	"/System Volume Information/_restore*",
	NULL,
};

const struct prep_preset prep_presets[] = {
	{
		.name = "pagefile",
		.reason = "Windows makes pagefile.sys and swapfile.sys anew at its next start",
		.patterns = pagefile,
	},
	{
		.name = "hiberfil",
		.reason = "hiberfil.sys holds the memory of a suspended session; Windows makes it anew when it needs it",
		.loses = "a suspended session, with all that was not saved in it, is lost",
		.patterns = hiberfil,
		.discards_hibernation = true,
	},
	{
		.name = "updates",
		.reason = "uninstall folders of service packs and hotfixes, and downloads of Windows Update that are installed",
		.loses = "the updates can no longer be uninstalled",
		.patterns = updates,
	},
	{
		.name = "temp",
		.reason = "temporary files, caches of web pages, recycle bins, crash dumps, Prefetch traces",
		.loses = "what is in the recycle bins, crash dumps and error reports are lost",
		.patterns = temp,
	},
	{
		.name = "restore",
		.reason = "System Restore's folders of Windows XP",
		.loses = "the system cannot be set back to an earlier restore point",
		.patterns = restore,
	},
};

const size_t prep_preset_count = sizeof prep_presets / sizeof prep_presets[0];

const struct prep_preset *prep_preset_find(const char *name)
{
	for (size_t i = 0; i < prep_preset_count; i++)
		if (strcmp(prep_presets[i].name, name) == 0)
			return &prep_presets[i];
	return NULL;
}
