# azd calls this on Windows. It runs prepackage.py with a Python that has pip.
$ErrorActionPreference = 'Stop'
# One joined child path: where there is no pwsh, azd takes Windows PowerShell 5.1, whose Join-Path knows no more.
$python = Join-Path $PSScriptRoot '..\..\.venv\Scripts\python.exe'
if (-not (Test-Path $python)) {
    $found = Get-Command python, python3 -ErrorAction SilentlyContinue | Select-Object -First 1
    if (-not $found) {
        Write-Error 'packaging the function app takes Python 3.11 or newer with pip, and there is no python'
    }
    $python = $found.Source
}
& $python (Join-Path $PSScriptRoot 'prepackage.py') @args
exit $LASTEXITCODE
